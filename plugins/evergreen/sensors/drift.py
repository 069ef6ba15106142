"""Fires when the newest monitor reports form a drift episode that nobody announced yet."""

from evergreen.sensors.wait_condition import WaitConditionSensor


class DriftSensor(WaitConditionSensor):
    """One answer per episode however often it is asked, restarted or run twice: the ledger remembers the episode."""

    condition = "drift"
