"""What every stage needs: parameters, outputs, schemas, errors, processes."""
