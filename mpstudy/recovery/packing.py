"""Which model families keep the examples of a packed row apart.

transformers tells packed examples apart by their positions, which begin again at 0 in each
(:func:`mpstudy.recovery.examples.packed`), if a family's code hands the positions to the attention mask.
``tests/recovery/test_packing.py`` measures it for every family that can be pruned.
"""

LEAKS = {  # by model_type: why its examples would attend to each other
    "opt": "its attention mask is made without the positions of the tokens",
}


def packs(config) -> bool:
    """Whether no token of a packed row attends to another example, for a model of this config. Where one does, each
    example needs a row of its own, filled up by padding (``Recipe(packing=False)``).
    """
    return config.model_type not in LEAKS
