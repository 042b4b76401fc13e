"""The report's sentences: what a strategy does, what a number means, what the limits are."""

from __future__ import annotations

from flames.metrics.paired import FEWEST

FEW = (
    "Brackets are 95 % intervals over cases, patients where they are known: of a mean by a "
    "bootstrap within sites, of a difference by swapping both results of a patient. A site with "
    "one of them has no interval, nor has a mean over sites with such a one; a difference of "
    f"fewer than {FEWEST} has none, and no p-value."
)
TOOK_PART = (
    "The site took part in the run that the model is from, which was trained on its training "
    "cases: this says nothing of a hospital that joins."
)
NOT_COMPARED = (
    "Nobody compared the images scored with those that the run was trained on, of sites whose "
    "stores are not here as the run had them (make sure yourself that none is among them)"
)
STRATEGIES = {
    "flames": (
        "Hospitals that use the same imaging modality share what their models learned, across "
        "organs, and never across modalities; each hospital keeps a model of its own, mixed with "
        "its peers’ in a share tuned on its validation cases, and the server keeps one model a "
        "modality, averaged by number of cases."
    ),
    "paper": (
        "The recipe as published: inside a modality each hospital's model is mixed with its "
        "peers’ in a fixed share that depends only on how many hospitals there are, and the "
        "server's model of a modality is the plain mean of theirs."
    ),
    "modality": (
        "Hospitals that use the same imaging modality train one common model by federated "
        "averaging, weighted by number of cases; nothing is shared across modalities."
    ),
    "fedavg": (
        "All hospitals, whatever their modality, train one common model by federated averaging, "
        "weighted by number of cases."
    ),
    "local": (
        "Each hospital trains alone on its own cases: nothing is shared. "
        "This is what federation has to beat."
    ),
    "central": (
        "The cases of all hospitals of a modality are pooled in one place and train one model. "
        "This is possible in simulation only, and shows what federation could reach at best."
    ),
    "uniform": (
        "All hospitals train one common model by federated averaging; each counts alike, however "
        "many cases it has."
    ),
    "fedprox": (
        "All hospitals train one common model by federated averaging; while it trains, each is "
        "held near the model it received."
    ),
    "fedbn": (
        "All hospitals average their models but for the normalisation layers, which each keeps. "
        "The server has no whole model."
    ),
    "fedadam": (
        "All hospitals train one common model; the server takes their mean movement as a gradient "
        "and steps with Adam."
    ),
    "scaffold": (
        "All hospitals train one common model; each corrects its gradients for where its own cases "
        "pull it."
    ),
    "ditto": (
        "All hospitals train one common model with half of their steps, and with the other half "
        "one of their own, held near it."
    ),
    "apfl": (
        "All hospitals train one common model with half of their steps, and with the other half "
        "one of their own and the share in which to mix the two."
    ),
    "fedrep": (
        "All hospitals share an encoder; each keeps a decoder of its own. The server has no whole "
        "model."
    ),
}

INSIDE = " Here only hospitals of one imaging modality share."
STRATEGIES |= {
    f"modality-{name}": STRATEGIES[name] + INSIDE
    for name in ("uniform", "fedprox", "fedbn", "fedadam", "scaffold", "ditto", "apfl", "fedrep")
}

SENDS = {
    "flames": "down: the mean of the peers, and the server's model; at the end its best one too",
    "paper": "down: the mean of the peers",
    "modality": "nothing",
    "fedavg": "nothing",
    "local": "sends its weights for the record; nothing comes down",
    "central": "the images themselves, which are not counted here",
    "uniform": "nothing",
    "fedprox": "nothing",
    "fedbn": "less: normalisation layers stay; the client keeps its own",
    "fedadam": "the server keeps its model and two moments of each weight",
    "scaffold": "a control variate of each weight, up, down and kept by the client",
    "ditto": "the client keeps a second model and its optimiser",
    "apfl": "the client keeps a second model, its share and their optimiser",
    "fedrep": "less: the decoder stays; the client keeps its own",
}
"""What a strategy sends or keeps beside the weights of one model."""

CHOSEN = {
    "own": "its own weights",
    "model": "the server's model",
    "best": "the server's best model so far",
    "mixture": "a mixture",
    "earlier": "its model of an earlier run",
}

RANKS = {"best": "Best case", "median": "Median case", "worst": "Worst case"}

SECONDS = {
    "train": "Training",
    "data": "of which waiting for data",
    "validate": "Validation",
    "score": "Scoring",
}

MEANINGS = [
    (
        "Personalised and server model",
        "Each hospital ends with a personalised model, chosen on its own validation cases. The "
        "server ends with models that serve every hospital of a modality (or all of them). Both "
        "are scored on the same test cases, which chose nothing: no round, threshold or mixture.",
    ),
    (
        "Dice and IoU",
        "Overlap of the predicted and the drawn tumour: 0 is none, 1 is perfect. Dice is twice "
        "the shared volume over the sum of both; IoU is the shared volume over their union, "
        "and never the higher of the two. Higher is better.",
    ),
    (
        "HD95",
        "The 95th percentile of the distance between the two outlines: how far apart they are "
        "nearly everywhere. In millimetres where the spacing of the image is known, else in "
        "pixels, and the table says which. Lower is better. Pixels of different images are not "
        "the same length, so sites in pixels must not be compared with sites in millimetres.",
    ),
    (
        "NSD",
        "Normalised surface Dice: the share of both outlines that lies within a tolerance of the "
        "other, between 0 and 1. Higher is better.",
    ),
    (
        "Volume error",
        "Predicted minus drawn tumour volume of a case (area in a single image). Positive means "
        "that the model draws too much.",
    ),
    (
        "Tumour presence",
        "Does the scan show a tumour at all? Sensitivity is the share of scans with a tumour in "
        "which the model marks one; specificity the share of tumour-free scans that it leaves "
        "clear; AUC how well its score ranks the two apart (0.5 is chance). Sensitivity needs "
        "scans with a tumour, specificity scans without: where a site has none, a dash is shown.",
    ),
    (
        "Empty masks",
        "No tumour drawn and none predicted: Dice is undefined, left out of the mean and counted "
        "as clear. No tumour drawn but one predicted: Dice 0, counted as a false alarm. A tumour "
        "missed entirely: Dice 0, counted as missed; its HD95 is undefined and left out, so "
        "HD95 must be read together with the missed.",
    ),
    (
        "Intervals",
        "Numbers in brackets are 95 % intervals over test cases, a bootstrap in which cases of "
        "one patient are drawn together. They say how much the mean could move with other "
        "patients of the same hospitals; they say nothing about other hospitals, nor about "
        "training again with another seed. The intervals of the pooled sensitivity and "
        "specificity at the top are Wilson’s, for a proportion.",
    ),
    (
        "Difference",
        "Two intervals that overlap do not tell whether two models differ. The difference is "
        "personalised minus server, tested by swapping both results of a patient at random; where "
        "its interval leaves out 0, chance in the choice of patients hardly explains it. With "
        f"fewer than {FEWEST} patients it has none.",
    ),
    (
        "Means",
        "Cases are averaged within a site first, then sites among each other, so that a large "
        "site does not speak for a small one.",
    ),
]

LIMITS = [
    "For research use only. Not a medical device, not for diagnosis or treatment.",
    "Scores hold for the test cases of these sites. Another scanner, protocol or population can "
    "give other results; test on your own cases before drawing conclusions.",
    "A mean hides its worst cases: look at the missed tumours, the false alarms and the marks of "
    "single cases in the figure.",
    "A single run has a single seed. Differences between strategies need several seeds, and the "
    "same training budget for each.",
]


def strategy_sentence(strategy: str | None) -> str:
    """Return what ``strategy`` does, in a sentence for people outside the field."""
    if strategy is None:
        return "The strategy of this run is not recorded."
    return STRATEGIES.get(
        strategy, f"The strategy is “{strategy}”; its documentation says how weights are shared."
    )
