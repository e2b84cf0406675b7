"""Scripts that make parts of the documentation from the code, its published figures and the lines of the benchmark."""
