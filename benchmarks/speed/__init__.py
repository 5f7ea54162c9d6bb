"""What calibration costs beside plain inference and beside the peers."""
