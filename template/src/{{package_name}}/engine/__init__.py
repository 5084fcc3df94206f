"""The engine on this machine: run a pipeline without a service, or start its servers."""
