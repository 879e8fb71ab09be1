"""What is stored of a trained network: quantisation, entropy coding, one file, counting, inspection."""
