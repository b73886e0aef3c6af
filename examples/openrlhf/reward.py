"""A reward file for OpenRLHF: ``--reward.remote_url examples/openrlhf/reward.py``.

``RANKER_MODEL`` names a pointwise model (recipe encoder-bradley-terry or decoder-bradley-terry), because OpenRLHF asks
for one response at a time.
"""

import os

from ranker.integrations.openrlhf import reward_function

reward_func = reward_function(os.environ.get("RANKER_MODEL", "runs/encoder-bradley-terry/model.onnx"))
