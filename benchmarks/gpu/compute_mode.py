"""Whether a device takes several processes at once: clusters set theirs to take one (`nvidia-smi -c 3`), and
every further one is refused then.
"""

from __future__ import annotations

import ctypes

_DRIVER = "libcuda.so.1"
_COMPUTE_MODE = 20
"""CU_DEVICE_ATTRIBUTE_COMPUTE_MODE; torch's properties of a device do not tell it."""
_EXCLUSIVE_PROCESS = 3
"""CU_COMPUTEMODE_EXCLUSIVE_PROCESS."""


def takes_one_process(driver_name: str = _DRIVER) -> bool:
    """Of the first visible device, by the driver; false where that does not tell. Makes no context: this
    process would be the one that is taken.
    """
    try:
        driver = ctypes.CDLL(driver_name)
        device, mode = ctypes.c_int(), ctypes.c_int()
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetAttribute(ctypes.byref(mode), _COMPUTE_MODE, device)
        )
    except (OSError, AttributeError):
        return False
    return not failed and mode.value == _EXCLUSIVE_PROCESS
