"""What a run needs: memory, time, money, disk. Never imports torch."""
