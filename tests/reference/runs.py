"""What two evaluations must agree in, however they were carried out: all but the time they took."""

import copy
import json
from typing import Any


def timeless(result: dict[str, Any]) -> str:
    """Return a result as text, without what was read off a clock."""
    result = copy.deepcopy(result)
    del result["seconds"]
    result.get("metric_cost", {}).pop("cpu_seconds_per_second", None)
    depths = [depth["throughput"] for depth in result.get("depths", {}).values()]
    for speeds in (result["throughput"], *depths):
        for name, value in speeds.items():
            speeds[name] = None if isinstance(value, float) else value
    return json.dumps(result, indent=1)
