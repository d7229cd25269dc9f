"""What TensorBoard shows of neighbourhoods: the dashboard, and files for others."""
