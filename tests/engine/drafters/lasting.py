"""Whether a drafter that was put away and taken up again is the one that it was."""

from __future__ import annotations

from collections.abc import Callable

from mtp_cli.engine.drafters.base import Draft, LastingDrafter


def check_lasting(drafter: LastingDrafter, go_on: Callable[[], list[Draft]]) -> None:
    """go_on: shows it more and lets it draft, always the same; the drafts"""
    saved = drafter.save()
    expected = go_on()
    assert any(draft.ids for draft in expected)
    drafter.truncate(0)
    drafter.restore(saved)
    assert drafter.n_waiting >= 0
    found = go_on()
    assert [draft.ids for draft in found] == [draft.ids for draft in expected]
    assert [draft.probs for draft in found] == [draft.probs for draft in expected]
    again = drafter.save()
    assert again.keys() == saved.keys()
