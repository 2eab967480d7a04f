"""The config files of each system. A test compares them with the folders of ``bundle/configs``."""

from __future__ import annotations

from experiments.bundle import FIXED_FACTOR

__all__ = [
    "BACKBONES",
    "CONTRASTIVE",
    "ESTIMATING",
    "ESTIMATION",
    "EVALUATION",
    "EVALUATIONS",
    "MISALIGNED",
    "OWN_NETWORK",
    "OWN_PAIRS",
    "PAIRS",
    "SHIPPED",
    "SLABS",
    "SLAB_NETWORK",
    "TRAININGS",
    "TRUNK",
    "TUNINGS",
    "UNPAIRED",
]

TRUNK = "train.yaml"
EVALUATION = "evaluate.yaml"
ESTIMATION = "tools.yaml"  # behind train.yaml, for `run estimating`
MISALIGNED = "data/misaligned.yaml"  # for a training on misaligned groups
CONTRASTIVE = "contrastive"  # train.yaml alone

# The files behind train.yaml, a tuple per stage.
SPECTRAL = "methods/spectral.yaml"
ANY_ACQUISITION = "methods/any_acquisition.yaml"
PAIRS = (SPECTRAL, "methods/kspace_pairs.yaml")
KERNEL = "networks/kernel_degradation.yaml"
TRAININGS: dict[str, tuple[tuple[str, ...], ...]] = {
    CONTRASTIVE: ((),),
    "adaptation_hinge": (("methods/adaptation_hinge.yaml",),),
    "adaptation_kernel": (("methods/adaptation_kernel.yaml", KERNEL),),
    "adaptation_spectrum": (("methods/adaptation_spectrum.yaml",),),
    "adaptation_weight": (("methods/adaptation_weight.yaml",),),
    "adversarial_kernel": (("methods/adversarial_degradation.yaml", KERNEL),),
    "any_acquisition": ((ANY_ACQUISITION,),),
    "blind_sr": (("methods/blind_sr.yaml",),),
    "cyclegan": (("methods/cyclegan.yaml",),),
    "dasr": (("methods/dasr_degradation.yaml",), ("methods/dasr.yaml",)),
    "distillation": ((ANY_ACQUISITION,), (ANY_ACQUISITION, "methods/distillation.yaml")),
    "kspace_pairs": (PAIRS,),
    "patch_contrastive": (("methods/patch_contrastive.yaml",),),
    "pooled": ((SPECTRAL, "data/pooled.yaml"),),
    "pseudo_sr": (("methods/pseudo_sr.yaml",),),
    "spectral": ((SPECTRAL,),),
    "spectral_contrastive": (("methods/spectral_contrastive.yaml",),),
    "supervised_misaligned": (("methods/supervised_misaligned.yaml",),),
    "supervised_oracle": ((SPECTRAL, "methods/supervised_oracle.yaml"),),
    "supervised_registered": (("methods/supervised_registered.yaml",),),
    "supervised_shift": (("methods/supervised_shift.yaml",),),
    "udean": (("methods/udean.yaml",),),
    "udean_feature_only": (("methods/udean_feature_only.yaml",),),
    "udean_image_only": (("methods/udean_image_only.yaml",),),
    "udean_no_adaptation": (("methods/udean_no_adaptation.yaml",),),
    "without_contrastive": (("methods/without_contrastive.yaml",),),
    "fine_tuning": (("recipes/fine_tuning.yaml",),),
}
TUNINGS = ("fine_tuning",)  # from the shipped weights
OWN_NETWORK = (*TUNINGS, "any_acquisition", "distillation")  # these take no other backbone
SLAB_NETWORK = ("adaptation_kernel", "adversarial_kernel")  # these take no backbone but slab_network
# These make their own pairs, so that they take no data/misaligned.yaml.
OWN_PAIRS = ("supervised_misaligned", "supervised_oracle", "supervised_registered", "supervised_shift")
UNPAIRED = ("pooled",)  # without misaligned groups

# The files behind evaluate.yaml, for the systems that need any.
EVALUATIONS: dict[str, tuple[str, ...]] = {
    "linear_inverse_estimated": (FIXED_FACTOR, "baselines/linear_inverse_estimated.yaml"),
    "linear_inverse_true": (FIXED_FACTOR, "baselines/linear_inverse_true.yaml"),
    "tricubic": (FIXED_FACTOR, "baselines/tricubic.yaml"),
    "tricubic_centred": (FIXED_FACTOR, "baselines/tricubic_centred.yaml"),
    "zero_filling": (FIXED_FACTOR, "baselines/zero_filling.yaml"),
    "zssr": (FIXED_FACTOR, "baselines/zssr.yaml"),
    "pseudo_sr": ("methods/pseudo_sr.yaml",),
}
ESTIMATING = ("linear_inverse_estimated",)  # they need the degradation of `run estimating`

# The files behind a trunk for another backbone. They stand behind SLABS in training, behind FIXED_FACTOR in evaluation.
SLABS = "networks/slabs.yaml"
BACKBONES: dict[str, tuple[str, ...]] = {
    "paper_network": ("networks/paper_network.yaml",),
    "slab_network": ("networks/slab_network.yaml",),
    "without_skip": ("networks/slab_network.yaml", "networks/without_skip.yaml"),
}

# The files behind train.yaml for each training of the shipped weights.
SHIPPED: tuple[tuple[str, ...], ...] = (
    (ANY_ACQUISITION, "recipes/shipped_weights.yaml"),
    (ANY_ACQUISITION, "methods/error_bars.yaml", "recipes/shipped_weights.yaml", "recipes/shipped_error_bars.yaml"),
)
