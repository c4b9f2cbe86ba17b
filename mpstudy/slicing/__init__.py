"""Models made smaller in their hidden size by rotations: :mod:`mpstudy.slicing.slicegpt`."""
