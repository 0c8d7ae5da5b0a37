"""Every family in both arms of crop_zoom, its replies token for token against stock `generate`."""

from pathlib import Path

import pytest

from tests.families.checkpoint import build
from tests.families.documentation import PAGE, table_rows
from tests.families.equality import compare, why_not_here
from tests.families.every import FAMILIES

# Families whose images look different beside others, so that no turn keeps the earlier ids.
RENDERED_ANEW = {"llava_onevision", "mllama"}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_replies_of_batched_conversations_are_those_of_stock_generate(
    model_type: str, tmp_path: Path
) -> None:
    family = FAMILIES[model_type]
    if reason := why_not_here(family):
        pytest.skip(reason)
    result = compare(family, build(family, tmp_path / model_type))
    assert result.n_equal == result.n_replies
    assert result.most_turns >= 3
    assert result.most_images == (0 if family.image is None else 3)
    assert result.sees_images == (family.image is not None)
    assert result.form == family.form
    assert result.is_rendered_anew == (model_type in RENDERED_ANEW)


def test_the_page_has_a_row_for_every_family() -> None:
    assert list(table_rows(PAGE.read_text(encoding="utf-8"))) == list(FAMILIES)
