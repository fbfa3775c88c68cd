"""What stands beside a photo's picture in its file and travels with it: HDR gain maps, motion photos' videos."""
