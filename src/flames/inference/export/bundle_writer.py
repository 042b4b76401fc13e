"""How a bundle writes a NIfTI: a class whose source its script carries along."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelWriter


class GridWriter(NibabelWriter):
    """Writes a mask with the axes and the unit of length of its image, which MONAI drops."""

    def set_metadata(self, meta_dict: Any, resample: bool = True, **options: Any) -> None:
        """Remember what the header of the image says."""
        super().set_metadata(meta_dict, resample, **options)
        self.axes = len(meta_dict["spatial_shape"])
        self.units = int(meta_dict.get("xyzt_units", 0))

    def write(self, filename: Any, verbose: bool = False, **given: Any) -> None:
        """Write the mask."""
        super().write(filename, verbose, **given)
        image: Any = self.data_obj
        image.header["xyzt_units"] = self.units
        shape = image.shape + (1,) * (self.axes - len(image.shape))
        mask = np.asarray(image.dataobj).reshape(shape)
        nib.save(nib.Nifti1Image(mask, None, image.header), filename)
