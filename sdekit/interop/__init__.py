"""Bridges to other libraries; each is imported by name, so that none is needed."""
