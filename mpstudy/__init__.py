"""mpstudy: a reproducible study of robust pruning of large language models.

Import the module you need (``from mpstudy import units``): this file stays empty so that a notebook's
fingerprint covers only the modules it uses.
"""

__version__ = "0.1.0"
