"""Nets of 8-bit integers: trained nets after quantisation, without floating point."""

from fastnet.int8.quantized import LayerReport, Quantized, Report, quantize

__all__ = ["LayerReport", "Quantized", "Report", "quantize"]
