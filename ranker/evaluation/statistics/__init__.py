"""What an evaluation says beyond accuracy; every number with its n and 95 % interval."""
