"""What law did that solver really produce? Exact laws, exact flows and orders of the production solvers."""

from sdekit.quantile_map import mid_quantiles, quantile_flow
from sdekit.verify import conditions
from sdekit.verify.affine import AffineMap, affine_map, numerical_law, probe
from sdekit.verify.budget import ErrorBudget, error_budget
from sdekit.verify.claims import Claim, claims
from sdekit.verify.conformance import Conformance, check_stepper, checks
from sdekit.verify.convergence import law_error, order
from sdekit.verify.flow import reference_flow
from sdekit.verify.foreign import RecordedNormals, probe_sampler, replay
from sdekit.verify.multiplicative import LinearErrors, linear_errors
from sdekit.verify.order import OrderEstimate, fit_order
from sdekit.verify.plateau import Plateau
from sdekit.verify.strong import StrongError, strong_error
from sdekit.verify.transport import Density1D, transported_law
from sdekit.verify.weak import WeakError, trigonometric, weak_error

__all__ = [
    "AffineMap",
    "Claim",
    "Conformance",
    "Density1D",
    "ErrorBudget",
    "LinearErrors",
    "OrderEstimate",
    "Plateau",
    "RecordedNormals",
    "StrongError",
    "WeakError",
    "affine_map",
    "check_stepper",
    "checks",
    "claims",
    "conditions",
    "error_budget",
    "fit_order",
    "law_error",
    "linear_errors",
    "mid_quantiles",
    "numerical_law",
    "order",
    "probe",
    "probe_sampler",
    "quantile_flow",
    "reference_flow",
    "replay",
    "strong_error",
    "transported_law",
    "trigonometric",
    "weak_error",
]
