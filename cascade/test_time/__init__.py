"""Test-time scaling: strategies that spend many responses of a trained model on each problem.

`refine` and `submit` are the two strategies, `plain` is what they are compared with: pure rules, and coroutines that
ask for responses and programs' results (`requests`) and are told them. `runner` carries out what they ask for, with
every result in a file as soon as it exists (`trail`). `scores` says what a budget bought, `node` builds a node of the
recipe."""
