"""Where a run goes on, in a checkpoint and back."""

from __future__ import annotations

from coke.tools.training.resume_point import ResumePoint


def test_a_point_comes_back_and_names_the_epoch_that_was_trained() -> None:
    loader = {"epoch": 4, "position": 48, "seed": 0, "order": 0, "window": 64}
    within = ResumePoint(epoch=4, step=3, loader=loader, meter={"images": 48}, bad_in_a_row=2)
    for point, trained in ((within, 4), (ResumePoint(epoch=5), 4), (ResumePoint(), -1)):
        state = point.state_dict()
        assert state["epoch"] == trained
        assert ResumePoint.of(state) == point
