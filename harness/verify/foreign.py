"""Level static for foreign records: which check belongs to which rule, and how one record is taken through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from harness.verify import (
    checks_course,
    checks_folder,
    checks_lists,
    checks_scores,
    checks_seeds,
    checks_sizes,
    checks_split,
    checks_statistics,
)
from harness.verify.findings import Finding, RecordRow
from harness.verify.foreign_case import ForeignCase
from harness.verify.rules import Rule
from harness.verify.static import Examiner

Check = Callable[[ForeignCase, Rule], Iterable[Finding]]

# In this order: a number that one rule convicts is not convicted again by a later one.
CHECKS: Mapping[str, Check] = {
    "XF1": checks_folder.files_can_be_read,
    "XF2": checks_folder.files_are_there,
    "XF3": checks_folder.commands_are_shipped,
    "XF4": checks_folder.code_is_that_logged,
    "XF5": checks_folder.logs_hold_one_run,
    "XF6": checks_folder.tables_are_of_the_record,
    "XM1": checks_scores.headline_is_logged,
    "XM2": checks_scores.loss_is_logged,
    "XM4": checks_scores.readme_is_the_summary,
    "XM5": checks_scores.seed_scores_are_logged,
    "XM6": checks_scores.other_scores_are_logged,
    "XM7": checks_scores.curve_is_logged,
    "XM8": checks_lists.losses_are_logged,
    "XM3": checks_split.ratio_is_possible,
    "XB1": checks_sizes.total_bytes_are_logged,
    "XB2": checks_sizes.code_bytes_hold,
    "XB3": checks_sizes.model_bytes_are_logged,
    "XB4": checks_sizes.bytes_add_up,
    "XB5": checks_sizes.cap_is_kept,
    "XB6": checks_sizes.log_confesses,
    "XP1": checks_sizes.params_are_logged,
    "XS1": checks_course.steps_are_logged,
    "XT1": checks_course.times_are_logged,
    "XT6": checks_lists.times_are_logged,
    "XT5": checks_course.step_times_are_logged,
    "XT2": checks_course.time_cap_is_kept,
    "XT3": checks_course.calibration_is_inside,
    "XT4": checks_course.log_was_in_time,
    "XE1": checks_seeds.seeds_are_those_logged,
    "XE2": checks_seeds.seeds_are_not_copies,
    "XE3": checks_seeds.seeds_have_logs,
    "XE4": checks_seeds.seed_count_holds,
    "XE5": checks_seeds.choice_of_seed_is_plain,
    "XV1": checks_statistics.means_hold,
    "XV2": checks_statistics.deviations_hold,
    "XV3": checks_statistics.p_value_holds,
    "XV4": checks_statistics.differences_hold,
    "XD1": checks_split.split_is_whole,
    "XD2": checks_split.split_is_the_standard_one,
}


READING_RULE = "XF1"


def examine_foreign(case: ForeignCase, rules: Sequence[Rule], examiner: Examiner) -> Iterator[Finding]:
    """Take one foreign record through its rules; a rule whose claim is not made says nothing."""
    by_id = {rule.id: rule for rule in rules}
    for rule_id, check in CHECKS.items():
        rule = by_id[rule_id]
        yield from examiner.run(case.name, rule, partial(check, case, rule))


def make_foreign_row(case: ForeignCase) -> RecordRow:
    """Return the row of a foreign record."""
    submission = case.submission
    seeds = submission.claimed_seeds
    has_limits = any(run.limits for run in submission.runs)
    return RecordRow(
        record=case.name,
        kind=case.kind,
        name=submission.title,
        seed=int(seeds[0]) if len(seeds) == 1 else None,
        is_partial=True if has_limits else None,
    )
