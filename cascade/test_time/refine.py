"""Generate–verify–refine: many answers, each verified many times, the best improved by what verifiers say of them.

After DeepSeekMath-V2 (arXiv 2511.22570) and its use at the IMO (arXiv 2603.19220, 2609.10712).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cascade.environments.proofs.wording import refine_prompt, score_of, verify_prompt, words_of
from cascade.recipe.sections import GenerateVerifyRefine
from cascade.test_time.budget import Ledger
from cascade.test_time.requests import Generate, Generated, Mark, Outcome, Search, Stopped


@dataclass(frozen=True)
class Verification:
    """`score` 0, 0.5 or 1; None where the response gives none: then it counts for nothing."""

    score: float | None
    words: str


@dataclass
class Candidate:
    key: str
    round: int
    content: str
    verifications: list[Verification] = field(default_factory=list)

    @property
    def rating(self) -> float | None:
        """Mean score; None without any."""
        scores = [each.score for each in self.verifications if each.score is not None]
        return sum(scores) / len(scores) if scores else None


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The highest rating first; of equal ones the shorter answer, then the earlier. Those without a rating last."""
    return sorted(candidates, key=lambda each: (1.0 if each.rating is None else -each.rating, len(each.content)))


def is_accepted(candidate: Candidate, threshold: float) -> bool:
    """Whether its rating reaches the threshold, and most verifiers gave a score."""
    valid = sum(each.score is not None for each in candidate.verifications)
    return candidate.rating is not None and candidate.rating >= threshold and 2 * valid > len(candidate.verifications)


def chosen_critiques(verifications: Sequence[Verification], count: int, per_score: int | None = None) -> list[str]:
    """The words of the lowest scores first, of equal ones the earlier; each once, at most `per_score` of a score."""
    found: list[str] = []
    of_score: dict[float, int] = {}
    scored = [each for each in verifications if each.score is not None and each.words]
    for each in sorted(scored, key=lambda each: each.score or 0.0):
        assert each.score is not None
        if len(found) < count and each.words not in found and of_score.get(each.score, 0) < (per_score or count):
            found.append(each.words)
            of_score[each.score] = of_score.get(each.score, 0) + 1
    return found


def final_grade(scores: Sequence[float | None]) -> float | None:
    """Any zero is a zero; otherwise the mean. None without any score."""
    valid = [score for score in scores if score is not None]
    if not valid:
        return None
    return 0.0 if min(valid) == 0 else sum(valid) / len(valid)


def to_refine(pool: Sequence[Candidate], count: int) -> list[Candidate]:
    """The highest ratings, of equal ones those of the latest round: they have the corrections of the earlier ones."""
    rated = [candidate for candidate in ranked(pool) if candidate.rating is not None]
    return sorted(rated, key=lambda each: (-(each.rating or 0.0), -each.round))[:count]


def new_round(kept: Sequence[Candidate], refinements: int) -> list[tuple[Candidate, int]]:
    """Who is refined, and which refinement of it that is: first each of the best once, then each again."""
    return [(candidate, number) for number in range(refinements) for candidate in kept]


def generate_verify_refine(
    problem: str, settings: GenerateVerifyRefine, ledger: Ledger, writers: Sequence[int], verifiers: Sequence[int]
) -> Search:
    """The search for one problem in words. `writers`, `verifiers`: numbers of the checkpoints that do it.

    A round is made smaller where the budget does not pay for it and its verifications. Equal answers are verified once,
    unfinished ones not at all.
    """
    pool: list[Candidate] = []
    marks: list[Mark] = []
    reason = "rounds"
    try:
        for number in range(1, settings.rounds + 1):
            wanted = _requests(problem, settings, writers, pool, number)
            wanted = wanted[: ledger.whole(len(wanted), 1 + settings.verifications)]
            if not wanted:
                reason = "budget"
                break
            written: list[Generated] = yield list(wanted)
            ledger.generated([each.tokens for each in written])
            seen = {candidate.content for candidate in pool}
            fresh: list[Candidate] = []
            for request, response in zip(wanted, written, strict=True):
                if response.finished and response.content and response.content not in seen:
                    seen.add(response.content)
                    fresh.append(Candidate(request.key, number, response.content))
            yield from _verify(problem, fresh, settings.verifications, verifiers, ledger, number)
            pool += fresh
            best = ranked(pool)[:1]
            marks.append(_mark(ledger, number, best[0].key if best else None))
            if best and is_accepted(best[0], settings.accept):
                reason = "accepted"
                break
    except Stopped:
        reason = "stopped"
    best = [candidate for candidate in ranked(pool) if candidate.verifications][:1]
    facts = {"rating": best[0].rating, "key": best[0].key, "round": best[0].round} if best else {}
    return Outcome(best[0].content if best else "", marks, reason, facts)


def _requests(
    problem: str, settings: GenerateVerifyRefine, writers: Sequence[int], pool: list[Candidate], number: int
) -> list[Generate]:
    """The answers of a round: from scratch, or refinements of the best so far by every checkpoint."""
    kept = to_refine(pool, settings.keep)
    if not kept:
        return [
            Generate(f"r{number}/c{index}", "write", number, problem, writer)
            for index, writer in enumerate(writer for _ in range(settings.candidates) for writer in writers)
        ]
    found = []
    for index, (candidate, _) in enumerate(new_round(kept, settings.refinements)):
        critiques = chosen_critiques(candidate.verifications, settings.critiques, settings.critiques_per_score)
        prompt = refine_prompt(problem, candidate.content, critiques)
        found += [Generate(f"r{number}/c{index}w{writer}", "refine", number, prompt, writer) for writer in writers]
    return found


def _verify(
    problem: str, candidates: list[Candidate], count: int, verifiers: Sequence[int], ledger: Ledger, number: int
) -> Search:
    """Verifications of new candidates, dealt out over the verifiers."""
    requests = [
        Generate(
            f"{candidate.key}/v{index}",
            "verify",
            number,
            verify_prompt(problem, candidate.content),
            verifiers[index % len(verifiers)],
        )
        for candidate in candidates
        for index in range(count)
    ]
    responses: list[Generated] = (yield list(requests)) if requests else []
    ledger.generated([each.tokens for each in responses])
    for index, response in enumerate(responses):
        candidates[index // count].verifications.append(verification(response))
    return Outcome("", [], "")


def verification(response: Generated) -> Verification:
    return Verification(score_of(response.content) if response.finished else None, words_of(response.content))


def _mark(ledger: Ledger, number: int, key: str | None) -> Mark:
    return Mark(number, ledger.spent_generations, ledger.spent_tokens, key=key)
