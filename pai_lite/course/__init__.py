"""What a teacher needs: grading of assignments, and the leaderboard of the project."""
