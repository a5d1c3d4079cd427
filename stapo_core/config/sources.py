"""Where problems come from, when not from a file of rows: a generator, named in place of them. Knows pydantic alone."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stapo_core.config.strict import Strict

MAX_PROBLEMS = 100_000
DEFAULT_PROBLEMS = 500

_NAMES = """
ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic
coin_flip color_cube_rotation complex_arithmetic count_bits count_primes countdown course_schedule
cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font
fraction_simplification futoshiki game_of_life game_of_life_halting gcd graph_color group_anagrams
gsm_symbolic intermediate_integration isomorphic_strings jugs kakurasu knight_swap knights_knaves
largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle manipulate_matrix
maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering number_format number_sequence
number_sorting palindrome_generation palindrome_partitioning path_star polynomial_equations
polynomial_multiplication pool_matrix power_function prime_factorization products propositional_logic puzzle24
quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour
self_reference sentence_reordering shortest_path simple_equations simple_geometry simple_integration sokoban
spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis sudoku
survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting
zebra_puzzles
"""
TASKS = tuple(_NAMES.split())
"""The tasks of reasoning-gym 0.1.25 but those refused below, known without importing it."""
_REFUSED = {
    "codeio": "runs programs that came with it; choose another",
    "composite": "mixes other tasks, which one file cannot describe; name one of these",
}


def _known(task: str) -> str:
    if task in _REFUSED:
        raise ValueError(f"reasoning-gym's task {task!r} {_REFUSED[task]}")
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=3)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {len(TASKS)}, such as 'chain_sum'"
        )
        raise ValueError(f"reasoning-gym has no task {task!r}; {hint}")
    return task


def _sized(config: dict[str, Any]) -> dict[str, Any]:
    size, seed = config.get("size", DEFAULT_PROBLEMS), config.get("seed", 0)
    if type(size) is not int or not 1 <= size <= MAX_PROBLEMS:
        raise ValueError(f"size {size!r} is no number of problems from 1 to {MAX_PROBLEMS}")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed!r} is no whole number from 0 to {2**32 - 1}")
    return config


class ReasoningGymSource(Strict):
    """Problems from reasoning-gym, made anew from the same seed wherever they are read."""

    source: Literal["reasoning_gym"]
    """Always `reasoning_gym`."""
    task: Annotated[str, AfterValidator(_known)]
    """The name of one of its tasks, such as `chain_sum`."""
    config: Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_sized)] = Field(default_factory=dict)
    """The task's own settings, as reasoning-gym names them; `size` problems (500) follow from `seed` (0)."""

    @property
    def size(self) -> int:
        """How many problems there are."""
        return int(self.config.get("size", DEFAULT_PROBLEMS))

    @property
    def resolved(self) -> dict[str, Any]:
        """The task's settings with the number of problems and the seed, which has no default of its own."""
        return {"size": DEFAULT_PROBLEMS, "seed": 0} | self.config
