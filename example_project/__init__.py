"""A small shop and an airport import, built on django_workflows."""
