"""What the exercises of each chapter are held against: ``from exercises import ch02``."""
