"""Public datasets by name: how they are laid out, which labels are tumour, whose they are.

To add one: a line in `DATASETS`, and a ``find_`` function where its layout is new.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from flames.data.msd import msd_folder
from flames.data.sources import SourceOptions
from flames.data.store import Modality
from flames.errors import FlamesError

MSD = "Antonelli et al., Nature Communications 2022, 10.1038/s41467-022-30695-9"
MSD_SITE = "http://medicaldecathlon.com"
BY_SA = "CC BY-SA 4.0"
MENZE = "Menze et al., IEEE TMI 2015, 10.1109/TMI.2014.2377694"
REGISTRATION = "after registration; for research, its terms forbid passing the data on"


UNUSED = {
    "images": "drop it; globs are for the format pairs",
    "masks": "drop it; globs are for the format pairs",
    "patient": "drop it; it is for the format pairs, others know their patients",
    "channel": "drop it; its images have one channel",
    "tumour_labels": "drop it; labels of DICOM have names, of which --roi says those of tumours",
    "other_labels": "drop it; labels of DICOM have names, of which --roi says those of tumours",
    "roi": "drop it; names of structures are for the formats dicom and sts",
}
"""What to do with an option that a format does not look at."""


@dataclass(frozen=True)
class Dataset:
    """What is known of one public dataset."""

    title: str
    modalities: tuple[Modality, ...]
    organ: str
    layout: str
    """The source format that finds its cases."""
    licence: str
    citation: str
    where: str
    """Where to get it."""
    folder: str
    """The folder to give as SOURCE, as the download unpacks."""
    options: SourceOptions = field(default_factory=SourceOptions)
    """What a user need not say; what is said wins."""
    converted: SourceOptions | None = None
    """The same where a folder holds NIfTI in ``imagesTr`` instead of the original files."""
    tumour: str = ""
    """What counts as tumour, in words, where neither labels nor structures say it."""

    @property
    def labels(self) -> str:
        """Return in words what counts as tumour."""
        if self.tumour:
            return self.tumour
        if self.options.roi:
            return f"structures {self.options.roi}"
        if not self.options.tumour_labels:
            return "every label but 0"
        return "label " + ", ".join(map(str, self.options.tumour_labels))


def _decathlon(
    title: str,
    modality: Modality,
    organ: str,
    folder: str,
    *,
    tumour: tuple[int, ...],
    other: tuple[int, ...] = (),
    channel: int | None = None,
) -> Dataset:
    options = SourceOptions(channel=channel, tumour_labels=tumour, other_labels=other)
    return Dataset(title, (modality,), organ, "msd", BY_SA, MSD, MSD_SITE, folder, options)


DATASETS: dict[str, Dataset] = {
    "busi": Dataset(
        "BUSI breast ultrasound", ("US",), "breast", "busi", "CC0 / CC BY 4.0",
        "Al-Dhabyani et al., Data in Brief 2020, 10.1016/j.dib.2019.104863",
        "the article's page, or the authors' page at Cairo University", "Dataset_BUSI_with_GT",
    ),
    "otu2d": Dataset(
        "MMOTU ovarian ultrasound, two-dimensional part", ("US",), "ovary", "otu2d", "CC BY 4.0",
        "Zhao et al., arXiv 2207.06799", "figshare, article 25058690", "OTU_2d",
    ),
    "kaggle3m": Dataset(
        "LGG brain MR as single slices (TCGA-LGG)", ("MR",), "brain", "kaggle3m",
        "CC BY-NC-SA 4.0, non-commercial",
        "Buda et al., Comput Biol Med 2019, 10.1016/j.compbiomed.2019.05.002",
        "Kaggle, dataset lgg-mri-segmentation", "kaggle_3m",
    ),
    "lgg": Dataset(
        "LGG brain MR, FLAIR volumes made of kaggle3m", ("MR",), "brain", "msd",
        "CC BY-NC-SA 4.0, non-commercial",
        "Buda et al., Comput Biol Med 2019, 10.1016/j.compbiomed.2019.05.002",
        "made from kaggle3m", "the folder with imagesTr and labelsTr",
        SourceOptions(unknown_spacing=True),
    ),
    "msd01-brain": _decathlon(
        "Decathlon 01, glioma; channel FLAIR", "MR", "brain", "Task01_BrainTumour",
        tumour=(1, 2, 3), channel=0,
    ),
    "msd03-liver": _decathlon(
        "Decathlon 03, liver tumours", "CT", "liver", "Task03_Liver", tumour=(2,), other=(1,)
    ),
    "msd06-lung": _decathlon(
        "Decathlon 06, lung tumours", "CT", "lung", "Task06_Lung", tumour=(1,)
    ),
    "msd07-pancreas": _decathlon(
        "Decathlon 07, pancreas tumours", "CT", "pancreas", "Task07_Pancreas",
        tumour=(2,), other=(1,),
    ),
    "msd08-hepatic-vessel": _decathlon(
        "Decathlon 08, liver tumours beside vessels", "CT", "liver", "Task08_HepaticVessel",
        tumour=(2,), other=(1,),
    ),
    "msd10-colon": _decathlon(
        "Decathlon 10, colon cancer", "CT", "colon", "Task10_Colon", tumour=(1,)
    ),
    "kits23": Dataset(
        "KiTS23 kidney tumours", ("CT",), "kidney", "kits", "CC BY-NC-SA 4.0, non-commercial",
        "Heller et al., arXiv 2307.01984", "https://github.com/neheller/kits23", "dataset",
        SourceOptions(tumour_labels=(2,), other_labels=(1, 3)),
    ),
    "brats2020": Dataset(
        "BraTS 2020 glioma; channel FLAIR", ("MR",), "brain", "brats", REGISTRATION,
        f"{MENZE}; Bakas et al., Scientific Data 2017, 10.1038/sdata.2017.117",
        "https://www.med.upenn.edu/cbica/brats2020/data.html", "MICCAI_BraTS2020_TrainingData",
        SourceOptions(channel=0, tumour_labels=(1, 2, 4)),
    ),
    "brats2021": Dataset(
        "BraTS 2021 glioma; channel FLAIR", ("MR",), "brain", "brats", REGISTRATION,
        f"{MENZE}; Baid et al., arXiv 2107.02314", "https://www.synapse.org, project syn25829067",
        "the folder with BraTS2021_00000 and so on",
        SourceOptions(channel=0, tumour_labels=(1, 2, 4)),
    ),
    "lidc": Dataset(
        "LIDC-IDRI lung nodules, DICOM with XML of four readers or as NIfTI", ("CT",), "lung",
        "lidc", "CC BY 3.0", "Armato et al., 10.7937/K9/TCIA.2015.LO9QL9SX",
        "The Cancer Imaging Archive, collection LIDC-IDRI, with its annotations",
        "the folder with LIDC-IDRI-0001 and so on; converted, the one with imagesTr and labelsTr",
        converted=SourceOptions(unknown_spacing=True),
        tumour="what at least half of the readers outlined; converted, every label but 0",
    ),
    "sts": Dataset(
        "Soft-tissue sarcoma, DICOM with contours or as NIfTI", ("MR", "CT"), "limb", "sts",
        "CC BY 3.0", "Vallieres et al., 10.7937/K9/TCIA.2015.7GO2GSKS",
        "The Cancer Imaging Archive, collection Soft-tissue-Sarcoma", "the folder of patients",
        SourceOptions(roi="GTV.*"),
    ),
}  # fmt: skip


def dataset_options(name: str, said: SourceOptions, folder: Path | None = None) -> SourceOptions:
    """Return what the user said, completed by what the dataset is known to need.

    Args:
        name: Of a dataset or a source format; a format needs nothing.
        said: What the user said.
        folder: The source, where what it holds decides.

    Raises:
        FlamesError: A label is said to be tumour and not to be.

    >>> dataset_options("msd03-liver", SourceOptions()).tumour_labels
    (2,)
    >>> dataset_options("msd03-liver", SourceOptions(tumour_labels=(1, 2))).other_labels
    ()
    """
    known = _known_options(name, folder)
    if not said.tumour_labels:
        others = (v for v in said.other_labels if v not in known.other_labels)
        said = replace(
            said,
            tumour_labels=known.tumour_labels,
            other_labels=(*known.other_labels, *others),
        )
    both = sorted(set(said.tumour_labels) & set(said.other_labels))
    if both:
        raise FlamesError(
            f"label {both[0]} is said to be tumour and not to be",
            "say it with one of --tumour-labels and --other-labels; of a dataset, give both",
        )
    return replace(
        said,
        channel=known.channel if said.channel is None else said.channel,
        roi=said.roi or known.roi,
        unknown_spacing=said.unknown_spacing or known.unknown_spacing,
    )


def _known_options(name: str, folder: Path | None) -> SourceOptions:
    dataset = DATASETS.get(name)
    if dataset is None:
        return SourceOptions()
    if dataset.converted is not None and folder is not None and msd_folder(folder) is not None:
        return dataset.converted
    return dataset.options


def refuse_unused(name: str, options: SourceOptions, folder: Path) -> None:
    """Refuse options that a dataset or source format would ignore.

    Args:
        name: Of the dataset or format.
        options: What the user said, completed by `dataset_options`.
        folder: The source, since what it holds can decide.

    Raises:
        FlamesError: There is one.
    """
    known = _known_options(name, folder)
    layout = DATASETS[name].layout if name in DATASETS else name
    for option in _unused(layout, folder):
        value = getattr(options, option)
        if value not in (None, (), getattr(known, option)):
            raise FlamesError(
                f"--{option.replace('_', '-')} says nothing to the format {name}", UNUSED[option]
            )


def _unused(layout: str, folder: Path) -> tuple[str, ...]:
    """Return the options that a layout does not look at."""
    unused: tuple[str, ...] = () if layout == "pairs" else ("images", "masks", "patient")
    if layout in ("lidc", "sts") and msd_folder(folder) is not None:
        layout = "msd"
    if layout in ("dicom", "lidc", "sts"):
        unused += ("channel", "tumour_labels", "other_labels")
    if layout not in ("dicom", "sts"):
        unused += ("roi",)
    return (*unused, "channel") if layout == "kits" else unused


def check_modality(name: str, modality: str) -> None:
    """Refuse a modality that a dataset does not hold.

    Raises:
        FlamesError: The dataset is of another modality.
    """
    known = DATASETS[name].modalities if name in DATASETS else None
    if known is not None and modality not in known:
        raise FlamesError(
            f"{name} is {' and '.join(known)}, not {modality}", f"say --modality {known[0]}"
        )
