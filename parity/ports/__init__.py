"""DDQ FCN and DDQ R-CNN (arXiv 2303.12776) as plug-ins for mmdet 3.x.

Importing this package registers them; a config does so with
``custom_imports = dict(imports=["parity.ports"], allow_failed_imports=False)``.
Parameter names are the legacy ones: a checkpoint of the authors loads without any conversion.
What was kept although it looks like a slip is listed in ``docs/legacy-quirks.md``.
"""

from parity.ports.assigner import DDQTopkAssigner
from parity.ports.checkpoints import load_from_file
from parity.ports.dense_loss import DDQDenseLoss
from parity.ports.detector import DDQRCNN
from parity.ports.dii_head import DDQDIIHead
from parity.ports.fcn_head import DDQFCNHead
from parity.ports.roi_head import DDQRoIHead
from parity.ports.rpn_head import DDQFCNRPN

__all__ = [
    "DDQDIIHead",
    "DDQDenseLoss",
    "DDQFCNHead",
    "DDQFCNRPN",
    "DDQRCNN",
    "DDQRoIHead",
    "DDQTopkAssigner",
    "load_from_file",
]
