"""Text templates by kind of target, each with the manifest that names its target file and service."""
