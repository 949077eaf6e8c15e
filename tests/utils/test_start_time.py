"""What a process of a node does not import."""

import subprocess
import sys


def test_transformers_is_imported_without_sklearn():
    asked = "import sys, cascade.policy.hf; print('sklearn' in sys.modules, 'transformers.generation' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
