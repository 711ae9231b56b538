"""Detection measured on labelled data, with peers beside it. What is measured and how: docs/detection.md."""
