"""Estimates of what recipes lose: by output errors on a few calibration samples."""
