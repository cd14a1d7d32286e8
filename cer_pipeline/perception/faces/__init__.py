"""The table `faces`: detection, verification by a mesh, crops, tracks, the subject of a window."""
