"""What the dashboard tells Streamlit: how large an upload may be, and colours of the theme.

Those that are read as text, or have text upon them, by the contrast ratio of WCAG 2.2.
"""

from __future__ import annotations

import tomllib

import pytest

from api.settings import Settings
from tests.dashboard.conftest import DASHBOARD

CONFIG = tomllib.loads((DASHBOARD.parent / ".streamlit" / "config.toml").read_text())
THEME = CONFIG["theme"]
WHITE = "#ffffff"  # of the words on a chip


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb`."""
    shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_on_a_chip_and_links_can_be_read(scheme: str) -> None:
    theme = THEME[scheme]

    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast(theme["primaryColor"], WHITE) >= 4.5
    assert contrast(theme.get("linkColor", theme["primaryColor"]), theme["backgroundColor"]) >= 4.5
    assert contrast(theme["primaryColor"], theme["backgroundColor"]) >= 3  # of a border and a slider


def test_an_upload_may_be_as_large_as_the_api_takes_it() -> None:
    assert CONFIG["server"]["maxUploadSize"] * 2**20 == Settings.model_fields["max_upload_bytes"].default
