"""The build wing with torch: networks with exits, joint training, export to one ONNX file per stage."""
