"""Stage 4, the class budget: which classes are sensitive, and how many images each one gets."""
