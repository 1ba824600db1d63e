"""What every room below builds on: errors, git, locks, processes, hardware, YAML. Knows neither DVC nor the project."""
