"""A reward file for verl: ``reward.custom_reward_function.path=examples/verl/reward.py``.

``RANKER_MODEL`` is a model file, or the address of ``ranker serve``, which then scores for all workers. ``ROLLOUTS`` is
``actor_rollout_ref.rollout.n``: a model that compares answers reads all completions of a prompt together.
"""

import os

from ranker.integrations.verl import async_reward_function

compute_score = async_reward_function(
    os.environ.get("RANKER_MODEL", "runs/pairrm/model.onnx"), rollouts=int(os.environ.get("ROLLOUTS", "8"))
)
