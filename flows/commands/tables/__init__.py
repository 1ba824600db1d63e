"""Commands that read what stages wrote, through stages.tools: they run nothing of the pipeline."""
