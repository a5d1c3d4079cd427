"""Parts of the page that Streamlit has not: each a thin Python face over modules under static/."""
