"""The network and the tone stage as graphs of operators, for exports and for engines that run such graphs."""
