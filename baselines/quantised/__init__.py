"""The quantised baseline: a dense network at few bits a number."""
