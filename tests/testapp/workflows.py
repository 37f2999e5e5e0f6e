"""The workflows and activities of the tests, found by autodiscovery."""
