"""Checks of the third assignment, on schedules and revival."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise, Mistake
from pai_lite.exercises.hw3_probes import (
    ROWS,
    probe_grasp,
    probe_masks,
    probe_record,
    probe_revival,
    probe_schedules,
)

PREFIX = "hw3"


def masks(*rows: str) -> list[list[int]]:
    """Return rows of kept weights from strings of their digits, after the row of all six."""
    return [[int(digit) for digit in row] for row in ("012345", *rows)]


def steps(counts: list[int], shares: list[float]) -> list[tuple[int, float]]:
    """Return pairs of a count and a share."""
    return list(zip(counts, shares, strict=True))


def records(*both: str) -> list[list[tuple[list[int], float]]]:
    """Return records from strings such as "332 623.7 132 308.9": weights by layer, and G."""
    words = (record.split() for record in both)
    return [
        [([*map(int, a)], float(b)) for a, b in zip(w[::2], w[1::2], strict=True)] for w in words
    ]


LINEAR = steps([37, 29, 20, 12, 4], [0.1778, 0.2162, 0.3103, 0.4, 0.6667])
EXPONENTIAL = steps([31, 19, 12, 8, 5], [0.3542, 0.3871, 0.3684, 0.3333, 0.375])
STAY, RETURN = masks("1234", "124", "14"), masks("1234", "145", "34")
BACK, GONE = [0, 1, 1, 1], [2, 2, 1, 1]
SIGNED, ABSOLUTE = records(
    "332 623.7 132 308.9 031 0 030 0", "422 497.2 321 447.7 121 80.38 111 80.38"
)

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=[LINEAR, EXPONENTIAL],
        praise="Equal differences and equal ratios, up to rounding, and both end at k. "
        "The errors that the question asks for are not tested here.",
        hint="To density 0.1 in five steps, the linear schedule takes 45 weights to 37 and at last "
        "to round(4.5) = 4, the exponential one 48 to 31 and at last to round(4.8) = 5. A list of "
        "five pairs (count, share) is wanted.",
        probe=probe_schedules,
        mistakes=(
            Mistake(
                "sparsity",
                [
                    steps([44, 43, 42, 41, 40], [0.0222, 0.0227, 0.0233, 0.0238, 0.0244]),
                    steps([47, 46, 45, 44, 43], [0.0208, 0.0213, 0.0217, 0.0222, 0.0227]),
                ],
                "You end at 40 of 45 weights. The density is the fraction that is kept.",
            ),
            Mistake(
                "end not rounded",
                [
                    steps([37, 29, 21, 13, 4], [0.1778, 0.2162, 0.2759, 0.381, 0.6923]),
                    steps([30, 19, 12, 8, 5], [0.375, 0.3667, 0.3684, 0.3333, 0.375]),
                ],
                "Your schedule heads for 4.5 weights and jumps to 4 at the end. Round the end "
                "point first, and put the integer into the formula.",
            ),
            Mistake(
                "end cut off",
                [LINEAR, steps([29, 18, 11, 7, 4], [0.3958, 0.3793, 0.3889, 0.3636, 0.4286])],
                "From 48 weights at the density 0.1 you end at 4; 4.8 is rounded to 5.",
            ),
            Mistake(
                "rounded twice",
                [LINEAR, steps([31, 20, 13, 8, 5], [0.3542, 0.3548, 0.35, 0.3846, 0.375])],
                "Your exponential counts are computed from the rounded ones before them, so the "
                "errors of rounding add up. Start each from n.",
            ),
            *(
                Mistake(
                    f"cut off, {exponential[-1][0]} left",
                    [steps([36, 28, 20, 12, 4], [0.2, 0.2222, 0.2857, 0.4, 0.6667]), exponential],
                    "Your counts are cut off after the point; 36.8 is rounded to 37.",
                )
                for exponential in (
                    steps([30, 19, 12, 7, 5], [0.375, 0.3667, 0.3684, 0.4167, 0.2857]),
                    steps([29, 17, 10, 6, 4], [0.3958, 0.4138, 0.4118, 0.4, 0.3333]),
                )
            ),
            Mistake(
                "half up",
                [steps([37, 29, 21, 13, 5], [0.1778, 0.2162, 0.2759, 0.381, 0.6154]), EXPONENTIAL],
                "From 45 weights you end at 5. Python's round takes 4.5 to 4, the even neighbour.",
            ),
            Mistake(
                "share of all",
                [
                    steps([37, 29, 20, 12, 4], [0.1778, 0.1778, 0.2, 0.1778, 0.1778]),
                    steps([31, 19, 12, 8, 5], [0.3542, 0.25, 0.1458, 0.0833, 0.0625]),
                ],
                "Your counts are right. The shares are to be those of the weights that are present "
                "before the step, not of all n.",
            ),
            Mistake(
                "share kept",
                [
                    steps([37, 29, 20, 12, 4], [0.8222, 0.7838, 0.6897, 0.6, 0.3333]),
                    steps([31, 19, 12, 8, 5], [0.6458, 0.6129, 0.6316, 0.6667, 0.625]),
                ],
                "Your counts are right. The shares are what a step keeps, not what it removes.",
            ),
        ),
    ),
    2: Exercise(
        right=[STAY, RETURN],
        praise="With regrow, weights 5 and 3 come back; without it none does.",
        hint="On a network of six weights, pruned to 4, 3 and 2, these are not the right masks. "
        "The first row keeps all; the first step is SNIP's and keeps weights 1 to 4. If yours does "
        "too, look at the second: it keeps 1, 2 and 4 without regrow, and 1, 4 and 5 with it.",
        probe=probe_masks,
        mistakes=(
            Mistake(
                "ties",
                [masks("1234", "134", "14"), RETURN],
                "The first step is right. In the second, without regrow, the kept weights 2 and 3 "
                "tie with scores of zero, and the smaller index is to stay.",
            ),
            Mistake(
                "threshold",
                [masks("1234", "1234", "14"), RETURN],
                "Your second step keeps four weights instead of three: two tie at the threshold. "
                "Take the first of a ranking instead.",
            ),
            Mistake(
                "dense network",
                [masks("1234", "234", "24")] * 2,
                "Your scores are the same in every step: they are those of the dense network. "
                "The gradient is wanted at the pruned weights.",
            ),
            Mistake(
                "pruned factor",
                [STAY, masks("1234", "014", "14")],
                "Without regrow you are right. With it, your removed weights all score zero: the "
                "factor is the initial weight, and the gradient is not masked.",
            ),
            Mistake(
                "sign",
                [masks("0124", "014", "14"), masks("0124", "145", "14")],
                "Your scores keep their sign; a weight matters whichever sign its slope has.",
            ),
            Mistake(
                "zero is not the lowest",
                [masks("1234", "014", "14"), RETURN],
                "Without regrow a removed weight has come back: its score of zero ties with that "
                "of kept weights. It needs a value below every possible score.",
            ),
            Mistake("swapped", [RETURN, STAY], "It is with regrow that removed weights compete."),
            Mistake("always", [RETURN] * 2, "Without regrow, removed weights must stay out."),
            Mistake("never", [STAY] * 2, "With regrow, removed weights may compete."),
            Mistake("first row", [STAY[1:], RETURN[1:]], "The row that keeps all is missing."),
            Mistake(
                "changed",
                "changed",
                "The weights that were handed in have changed, or have a gradient now. Work on a "
                "detached copy.",
            ),
            Mistake("type", "type", "One boolean tensor is wanted, with the masks as its rows."),
            Mistake("calls", "calls", "The loss is not called exactly once in every step."),
        ),
    ),
    3: Exercise(
        right=(BACK, GONE, 2),
        praise="Weights 2, 0 and 5 return, in this order; 0 and 5 are there at the end.",
        hint=f"For the rows {', '.join(ROWS)}: in the second step weight 2 returns, and 0 and 5 "
        "leave. Two lists of four integers and one integer are wanted.",
        probe=probe_record,
        mistakes=(
            Mistake(
                "net",
                ([0, 0, 0, 0], [2, 1, 0, 0], 2),
                "You have the differences of the counts. In the second step one weight returns "
                "and two leave.",
            ),
            Mistake(
                "against the first",
                ([0, 0, 0, 0], [2, 3, 3, 3], 2),
                "You compare each row with the first. Compare it with the one just before it.",
            ),
            Mistake("swapped", (GONE, BACK, 2), "Your returns are departures, and vice versa."),
            Mistake(
                "all that returned",
                (BACK, GONE, 3),
                "Both lists are right. Weight 2 has returned but is missing in the last row, so it "
                "does not count there.",
            ),
            Mistake(
                "missing at the end",
                (BACK, GONE, 5),
                "Both lists are right. The last number counts weights that the last row keeps.",
            ),
            Mistake(
                "last step",
                (BACK, GONE, 1),
                "Both lists are right. Weight 0 was missing earlier, too, though not just before.",
            ),
        ),
    ),
    4: Exercise(
        right=0,
        praise="Without weight 1 the other cannot reach the target alone, so both slopes grow.",
        hint="A tensor of shape (4,) is wanted, with which all statements are true.",
        probe=probe_revival,
        mistakes=(
            Mistake(
                "step 1",
                1,
                "At the target 1 the first step does not remove weight 1, as statement 1 wants. "
                "Weights 0 and 1 have the same slope in the dense network; which of them scores "
                "less, and how do both score less than the other two?",
            ),
            Mistake(
                "step 2",
                2,
                "At the target 1 statement 1 is true and statement 2 is not. Write down the four "
                "scores without weight 1, and put them in the order that both methods need.",
            ),
            Mistake(
                "loss",
                3,
                "At the target 1 only statement 3 is not true. The loss of what FORCE keeps is not "
                "the smaller one: compare the residuals of both networks.",
            ),
            Mistake(
                "scale",
                "scale",
                "Right at the target 1, and not at 2.5. How do all four scores change when y and "
                "all weights are multiplied by the same number?",
            ),
            Mistake("margin", 4, "All is true, but in one comparison by less than one percent."),
            Mistake("type", "type", "A tensor of shape (4,) in float64 is wanted."),
        ),
    ),
    5: Exercise(
        right=[SIGNED, ABSOLUTE],
        praise="With its sign the score empties the first layer, and the gradient is gone.",
        hint="For three layers of 4, 4 and 2 weights, pruned to 8, 6, 4 and 3, the records are "
        "wrong. In the first step the signed scores keep 3, 3 and 2 and the absolute ones 4, 2 and "
        "2; a pair is wanted for every step. Try the example by hand first.",
        probe=probe_grasp,
        mistakes=(
            Mistake(
                "gradient of removed weights",
                records(
                    "332 630.1 222 520.1 121 2871 111 2871", "422 498.5 321 754.1 211 1640 111 1484"
                ),
                "Your gradient has entries for removed weights. They count neither in G nor in "
                "the product with the Hessian.",
            ),
            Mistake(
                "gradient of removed weights in the product",
                records(
                    "332 623.7 222 308.9 121 0 111 0", "422 497.2 321 447.7 211 80.38 111 80.38"
                ),
                "Your G is that of the kept weights. The gradient that is multiplied by the "
                "Hessian must lose its entries for removed weights too.",
            ),
            Mistake(
                "norm over all",
                records(
                    "332 630.1 132 514.5 031 11.7 030 0", "422 498.5 321 754.1 121 3860 111 1484"
                ),
                "The counts are right. G is to be summed over the kept weights only.",
            ),
            Mistake(
                "norm before",
                records(
                    "332 558.2 132 623.7 031 308.9 030 0", "422 558.2 321 497.2 121 447.7 111 80.38"
                ),
                "The counts are right. G is wanted at the mask after each step, not before it.",
            ),
            Mistake(
                "root",
                records(
                    "332 24.97 132 17.57 031 0 030 0", "422 22.3 321 21.16 121 8.965 111 8.965"
                ),
                "The counts are right. G is the squared norm, without the root.",
            ),
            *(
                Mistake(
                    f"filled up: {end}",
                    [*records(f"332 623.7 132 308.9 {end}"), ABSOLUTE],
                    "With signed scores, removed weights have come back: the value that you give "
                    "them, such as 0 or -1, stands above some negative scores.",
                )
                for end in ("310 0 300 0", "220 0 210 0", "121 3.437 111 3.437")
            ),
            Mistake(
                "removed weights compete",
                records("332 623.7 222 308.9 220 0 300 0", "422 497.2 321 447.7 121 80.38 111 0"),
                "The first step is right. Then removed weights compete with the others and come "
                "back; here a removed weight never returns.",
            ),
            Mistake(
                "ties",
                [*records("332 623.7 132 308.9 031 0 021 0"), ABSOLUTE],
                "Only the last step with signed scores is wrong: all scores are zero there, and "
                "the smaller index is kept first.",
            ),
            Mistake(
                "wrong end",
                [*records("332 1508 321 36.95 211 22.44 201 0"), ABSOLUTE],
                "With signed scores you keep the smallest. Larger means keep.",
            ),
            Mistake(
                "wrong end of both",
                records(
                    "332 1508 321 11.05 121 80.38 021 0", "422 4.804 231 55.21 211 11.05 021 0"
                ),
                "You keep the smallest scores, and removed weights with them. Larger means keep.",
            ),
            Mistake(
                "without w",
                records("332 1508 321 36.95 211 22.44 111 3.437", "422 497.2 420 0 400 0 300 0"),
                "Your scores lack the factor w.",
            ),
            Mistake(
                "dense network",
                records("332 623.7 132 385.5 112 279 111 279", "422 497.2 321 447.7 220 0 120 0"),
                "The first step is right. Later ones use the scores of the dense network again; "
                "score the pruned one.",
            ),
            Mistake("last", [SIGNED[-1:], ABSOLUTE[-1:]], "A pair is wanted for every step."),
            Mistake("swapped", [ABSOLUTE, SIGNED], "Signed and absolute scores are swapped."),
            Mistake("sign", [ABSOLUTE] * 2, "You take absolute values in both cases."),
            Mistake("no absolute value", [SIGNED] * 2, "Your scores keep their sign always."),
            Mistake("changed", "changed", "The weights have changed, or have a gradient now."),
            Mistake("graph", "graph", "Keep the graph of the first derivative: create_graph=True."),
        ),
    ),
}
