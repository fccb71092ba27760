"""Elementary functions, compiled: what a compiler's vectors leave of their digits."""

from __future__ import annotations

import pytest
import torch

from sdekit import elementary as el

pytestmark = [
    # What torch.compile says of Python's imports.
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "largest", "smallest"), [(torch.float64, 700.0, -300.0), (torch.float32, 87.0, -35.0)]
)
def test_a_compiled_expm1_keeps_its_digits(dtype, largest, smallest):
    """Within four units in the last place of the eager one, from 1e-300 (1e-35) to where e^x overflows."""
    tiny = 10.0 ** torch.linspace(smallest, 0.0, 4000, dtype=torch.float64)
    sizes = torch.cat([tiny, torch.linspace(1.0, largest, 4000, dtype=torch.float64)]).to(dtype)
    x = torch.cat([sizes, -sizes])
    torch.compiler.reset()
    compiled = torch.compile(lambda x: el.expm1(x), fullgraph=True)
    ends = torch.tensor([0.0, 2 * largest, torch.inf, -2 * largest, -torch.inf], dtype=dtype)
    try:
        torch.testing.assert_close(compiled(x), el.expm1(x), rtol=4 * torch.finfo(dtype).eps, atol=0.0)
        assert compiled(ends).tolist() == [0.0, torch.inf, torch.inf, -1.0, -1.0]
    finally:
        torch.compiler.reset()
