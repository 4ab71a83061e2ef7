"""Is the answer grounded: faithfulness to the retrieved context, relevance, clinical guidelines."""
